-- One row an object: its name, and all that can differ between two of that name. The books that every chain keeps
-- in schema federation stay when a database goes back to base, and are left out. A column's position counts in views
-- alone: a column that a table gets back is its last one. No privileges (NULL) means the built-in ones, which GRANT and
-- REVOKE spell out.
WITH
n AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\_t%'
),
c AS (
    SELECT c.* FROM pg_class AS c JOIN n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT (
        n.nspname = 'federation' AND c.relname IN (
            'alembic_version', 'history', 'history_id_seq', 'guard', 'pair', 'run', 'storage'))
),
a AS (
    SELECT a.*, c.relkind FROM pg_attribute AS a JOIN c ON c.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S'
)
SELECT 'schema ' || quote_ident(nspname),
    format('owned by %s, privileges %s', nspowner::regrole, ARRAY(SELECT x::text FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) AS x ORDER BY 1))
FROM n WHERE nspname <> 'federation'
UNION ALL
SELECT format('%s %s',
        CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
            WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid::regclass),
    format('owned by %s, row-level security %s (forced: %s), options %s, privileges %s, comment %s%s',
        c.relowner::regrole, CASE WHEN c.relrowsecurity THEN 'on' ELSE 'off' END, c.relforcerowsecurity,
        c.reloptions, ARRAY(SELECT x::text FROM unnest(coalesce(c.relacl,
            acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) AS x ORDER BY 1),
        quote_nullable(obj_description(c.oid, 'pg_class')),
        CASE WHEN c.relkind IN ('v', 'm') THEN ', defined as ' || pg_get_viewdef(c.oid)
            WHEN c.relkind = 'f' THEN ', foreign options '
                || (SELECT f.ftoptions::text FROM pg_foreign_table AS f WHERE f.ftrelid = c.oid) END)
FROM c
UNION ALL
SELECT format('column %s.%I', a.attrelid::regclass, a.attname),
    format('%s%s%s, default %s, identity %L, generated %L, statistics %s, foreign options %s, privileges %s, '
        'comment %s',
        CASE WHEN a.relkind IN ('v', 'm')
            THEN format('the %s., ', row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum)) END,
        format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN ' NOT NULL' END,
        (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum),
        a.attidentity, a.attgenerated, coalesce(nullif(a.attstattarget, -1)::text, 'as usual'), a.attfdwoptions,
        ARRAY(SELECT x::text FROM unnest(a.attacl) AS x ORDER BY 1),
        quote_nullable(col_description(a.attrelid, a.attnum)))
FROM a
UNION ALL
SELECT format('constraint %I on %s', k.conname, c.oid::regclass), pg_get_constraintdef(k.oid)
FROM pg_constraint AS k JOIN c ON c.oid = k.conrelid
UNION ALL
SELECT 'index ' || i.indexrelid::regclass,
    format('%s, valid %s', pg_get_indexdef(i.indexrelid), i.indisvalid AND i.indisready)
FROM pg_index AS i JOIN c ON c.oid = i.indrelid
UNION ALL
SELECT format('policy %I on %s', p.polname, c.oid::regclass),
    format('for %s to %s, permissive %s, using %s, with check %s', p.polcmd,
        ARRAY(SELECT role::regrole::text FROM unnest(p.polroles) AS role ORDER BY 1), p.polpermissive,
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy AS p JOIN c ON c.oid = p.polrelid
UNION ALL
SELECT format('trigger %I on %s', t.tgname, c.oid::regclass),
    format('%s, enabled %s', pg_get_triggerdef(t.oid), t.tgenabled)
FROM pg_trigger AS t JOIN c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
SELECT 'function ' || p.oid::regprocedure,
    format('owned by %s, privileges %s, %s', p.proowner::regrole,
        ARRAY(SELECT x::text FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) AS x ORDER BY 1),
        CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END)
FROM pg_proc AS p JOIN n ON n.oid = p.pronamespace
WHERE NOT (n.nspname = 'federation' AND p.proname IN ('guard_version', 'settle'))
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'type ' || t.oid::regtype,
    format('%s %s', t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod))
FROM pg_type AS t JOIN n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
UNION ALL
SELECT format('label %L of type %s', e.enumlabel, t.oid::regtype), 'there'
FROM pg_enum AS e JOIN pg_type AS t ON t.oid = e.enumtypid JOIN n ON n.oid = t.typnamespace
UNION ALL
SELECT 'foreign server ' || quote_ident(s.srvname),
    format('owned by %s, options %s, privileges %s', s.srvowner::regrole,
        ARRAY(SELECT o FROM unnest(s.srvoptions) AS o WHERE o NOT LIKE 'dbname=%' ORDER BY 1),
        ARRAY(SELECT x::text FROM unnest(coalesce(s.srvacl, acldefault('S', s.srvowner))) AS x ORDER BY 1))
FROM pg_foreign_server AS s
UNION ALL
SELECT format('user mapping of %s for foreign server %I', m.usename, m.srvname),
    format('as %s', ARRAY(SELECT o FROM unnest(m.umoptions) AS o WHERE o NOT LIKE 'password=%' ORDER BY 1))
FROM pg_user_mappings AS m
UNION ALL
SELECT format('default privileges of %s in schema %s on %s', d.defaclrole::regrole,
        coalesce(nullif(d.defaclnamespace, 0)::regnamespace::text, '(all)'), d.defaclobjtype),
    ARRAY(SELECT x::text FROM unnest(d.defaclacl) AS x ORDER BY 1)::text
FROM pg_default_acl AS d
UNION ALL
SELECT format('publication %I', p.pubname), ARRAY(SELECT format('%I.%I', t.schemaname, t.tablename)
    FROM pg_publication_tables AS t WHERE t.pubname = p.pubname ORDER BY 1)::text
FROM pg_publication AS p
UNION ALL
SELECT format('event trigger %I', evtname), format('on %s, %s', evtevent, evtfoid::regproc) FROM pg_event_trigger
UNION ALL
SELECT format('extension %I', extname), format('in schema %s, version %s', extnamespace::regnamespace, extversion)
FROM pg_extension
