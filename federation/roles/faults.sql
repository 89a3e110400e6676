-- What is wrong with the roles that carry the link: (role, fault, remedy, refused), a row each.
-- bound: the link roles, or the sender. becomes: which of them may SET ROLE, and callers: to what. logs_in: whether
-- they log in. owner: who may be a member.
WITH RECURSIVE granted AS (  -- from 16 on a grant says what it gives; before, the member does
    SELECT m.roleid, m.member, g.rolname AS grantor, m.admin_option AS admin,
        coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, r.rolinherit) AS inherits,
        coalesce((to_jsonb(m) ->> 'set_option')::boolean, true) AS sets,
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN format(' GRANTED BY %I', g.rolname)
            ELSE '' END AS by
    FROM pg_catalog.pg_auth_members AS m
    JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
    JOIN pg_catalog.pg_roles AS g ON g.oid = m.grantor
),
bound AS (SELECT r.* FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ({bound}::name[])),
callers AS (SELECT r.* FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ({callers}::name[])),
acting AS (  -- the roles that a session of the link may have
    SELECT b.oid FROM bound AS b
    UNION
    SELECT c.oid FROM acting AS a JOIN granted AS g ON g.member = a.oid JOIN callers AS c ON c.oid = g.roleid
    WHERE a.oid IN (SELECT oid FROM callers) OR a.oid = (SELECT b.oid FROM bound AS b WHERE b.rolname = {becomes})
)
SELECT r.rolname::text AS role, format('has %s', attribute) AS fault,
    format('ALTER ROLE %I NO%s', r.rolname, attribute) AS remedy, true AS refused
FROM acting AS a JOIN pg_catalog.pg_roles AS r ON r.oid = a.oid,
    LATERAL (VALUES ('SUPERUSER', r.rolsuper), ('BYPASSRLS', r.rolbypassrls), ('REPLICATION', r.rolreplication),
        ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
        ('INHERIT', r.rolinherit AND {logs_in} AND r.oid IN (SELECT b.oid FROM bound AS b))) AS v (attribute, has)
WHERE v.has
UNION ALL
SELECT b.rolname, CASE WHEN b.rolcanlogin THEN 'can log in' ELSE 'cannot log in' END,
    format('ALTER ROLE %I %s', b.rolname, CASE WHEN b.rolcanlogin THEN 'NOLOGIN' ELSE 'LOGIN' END), true
FROM bound AS b WHERE b.rolcanlogin <> {logs_in}
UNION ALL
SELECT r.rolname, format('is a member of %s', m.rolname), format('REVOKE %I FROM %I%s', m.rolname, r.rolname, g.by), true
FROM acting AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.oid
JOIN granted AS g ON g.member = a.oid
JOIN pg_catalog.pg_roles AS m ON m.oid = g.roleid
WHERE m.oid NOT IN (SELECT oid FROM acting) OR m.oid IN (SELECT oid FROM bound)
    OR r.oid IN (SELECT oid FROM bound) AND r.rolname <> {becomes}
UNION ALL
SELECT b.rolname, format(CASE WHEN g.admin THEN 'may grant %s' ELSE 'inherits the privileges of %s' END, m.rolname),
    format('REVOKE %I FROM %I%s, then `federation bootstrap local`', m.rolname, b.rolname, g.by), true
FROM bound AS b
JOIN granted AS g ON g.member = b.oid
JOIN callers AS m ON m.oid = g.roleid
WHERE b.rolname = {becomes} AND (g.admin OR g.inherits AND NOT b.rolinherit)
UNION ALL
SELECT b.rolname,
    format(CASE WHEN g.sets OR g.inherits THEN 'has the member %s' ELSE 'was made by %s, who may make members of it' END,
        m.rolname),
    format('REVOKE %I FROM %I%s', b.rolname, m.rolname, g.by), g.sets OR g.inherits
FROM bound AS b
JOIN granted AS g ON g.roleid = b.oid
JOIN pg_catalog.pg_roles AS m ON m.oid = g.member
WHERE NOT m.rolsuper AND m.rolname <> {owner} AND m.oid NOT IN (SELECT oid FROM bound)
UNION ALL
SELECT r.rolname, format('owns %s object%s', count(*), CASE WHEN count(*) > 1 THEN 's' ELSE '' END),
    format('REASSIGN OWNED BY %I TO CURRENT_USER in each database where it owns any', r.rolname), true
FROM acting AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.oid
JOIN pg_catalog.pg_shdepend AS d ON d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = r.oid
WHERE {logs_in} AND d.deptype = 'o'
GROUP BY r.rolname
ORDER BY refused DESC, role, fault
