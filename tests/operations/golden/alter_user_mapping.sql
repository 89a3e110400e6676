CREATE TEMPORARY TABLE federation_secret (password text NOT NULL) ON COMMIT DROP;

\if :{?FEDERATION_LINK_PASSWORD}
\setenv FEDERATION_LINK_PASSWORD :FEDERATION_LINK_PASSWORD
\endif
\copy pg_temp.federation_secret (password) FROM PROGRAM 'printenv FEDERATION_LINK_PASSWORD' WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')

DO $federation$
BEGIN
    EXECUTE 'ALTER USER MAPPING FOR "service_role" SERVER "hospital" OPTIONS (SET user ''federation_link'', SET password ' || quote_literal((SELECT password FROM pg_temp.federation_secret)) || ')';
EXCEPTION WHEN OTHERS THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
END $federation$;

DROP TABLE pg_temp.federation_secret;

