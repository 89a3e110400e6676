-- What the link's service role needs of the guard: the cloud's own sessions use it, and no caller's.
GRANT USAGE ON SCHEMA federation TO {service};
GRANT SELECT, UPDATE (cloud_release) ON federation.guard TO {service};
