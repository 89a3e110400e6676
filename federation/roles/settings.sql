-- Settings of the link roles that are not the declared ones: (role, fault, remedy), a row each.
-- A setting in this database passes one for all databases. What the administrator could not set may be missing.
WITH bound AS (SELECT r.oid, r.rolname FROM pg_catalog.pg_roles AS r WHERE r.rolname = ANY ({bound}::name[])),
there AS (
    SELECT b.rolname, d.setdatabase <> 0 AS here, split_part(s.setting, '=', 1) AS name,
        substr(s.setting, strpos(s.setting, '=') + 1) AS value
    FROM bound AS b
    JOIN pg_catalog.pg_db_role_setting AS d ON d.setrole = b.oid,
        unnest(d.setconfig) AS s (setting)
    WHERE d.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
),
declared AS (SELECT * FROM unnest({names}::text[], {values}::text[]) AS d (name, value))
SELECT t.rolname::text AS role, format('has the setting %s%s', t.name, CASE WHEN t.here THEN ' in this database' ELSE '' END)
    AS fault, 'federation bootstrap local' AS remedy
FROM there AS t LEFT JOIN declared AS d ON d.name = t.name
WHERE t.here OR t.value IS DISTINCT FROM d.value
UNION ALL
SELECT b.rolname, format('lacks the setting %s = %s', d.name, d.value), 'federation bootstrap local'
FROM bound AS b CROSS JOIN declared AS d
WHERE d.name <> ALL ({optional}::text[])
    AND NOT EXISTS (SELECT FROM there AS t WHERE t.rolname = b.rolname AND t.name = d.name AND NOT t.here)
ORDER BY role, fault
