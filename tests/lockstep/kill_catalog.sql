-- All that a database holds but the toolkit's books' rows, one line an object, in one order: what pg_dump would say,
-- without starting it. What initdb made has ids below 16384; where the others are few, the index on ids finds them.
WITH
n AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\_t%'
),
c AS (SELECT c.*, n.nspname FROM pg_class AS c JOIN n ON n.oid = c.relnamespace WHERE c.oid >= 16384),
a AS (SELECT a.*, c.oid::regclass AS owner_, c.relkind FROM pg_attribute AS a JOIN c ON c.oid = a.attrelid
      WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped)
SELECT line FROM (
    SELECT format('schema %s %s %s', nspname, nspowner::regrole,
        ARRAY(SELECT x::text FROM unnest(nspacl) AS x ORDER BY 1)) FROM n
    UNION ALL
    SELECT format('relation %s %s %s rls %s %s %s %s %s', c.oid::regclass, c.relkind, c.relowner::regrole,
        c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
        ARRAY(SELECT x::text FROM unnest(c.relacl) AS x ORDER BY 1), obj_description(c.oid, 'pg_class'))
    FROM c WHERE relkind <> 't'
    UNION ALL
    SELECT format('column %s %s. %s %s notnull %s default %s %s %s statistics %s %s %s', a.owner_,
        row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
        format_type(a.atttypid, a.atttypmod), a.attnotnull,
        (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum),
        a.attidentity, a.attgenerated, a.attstattarget, a.attfdwoptions,
        ARRAY(SELECT x::text FROM unnest(a.attacl) AS x ORDER BY 1)) FROM a WHERE relkind <> 't'
    UNION ALL
    SELECT format('view %s %s', c.oid::regclass, pg_get_viewdef(c.oid)) FROM c WHERE relkind IN ('v', 'm')
    UNION ALL
    SELECT format('constraint %s %s %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))
    FROM pg_constraint AS k JOIN n ON n.oid = k.connamespace
    UNION ALL
    SELECT format('index %s valid %s ready %s', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready)
    FROM pg_index AS i JOIN c ON c.oid = i.indrelid WHERE c.relkind <> 't'
    UNION ALL
    SELECT format('policy %s %s %s %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive,
        p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy AS p
    UNION ALL
    SELECT format('trigger %s enabled %s', pg_get_triggerdef(t.oid), t.tgenabled)
    FROM pg_trigger AS t JOIN c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('function %s %s %s %s', p.oid::regprocedure, p.proowner::regrole,
        ARRAY(SELECT x::text FROM unnest(p.proacl) AS x ORDER BY 1),
        CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END)
    FROM pg_proc AS p JOIN n ON n.oid = p.pronamespace WHERE p.oid >= 16384
    UNION ALL
    SELECT format('type %s %s %s', t.oid::regtype, t.typtype,
        ARRAY(SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder))
    FROM pg_type AS t JOIN n ON n.oid = t.typnamespace
    WHERE t.oid >= 16384 AND t.typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT format('server %s %s %s %s', s.srvname, s.srvowner::regrole, s.srvoptions,
        ARRAY(SELECT x::text FROM unnest(s.srvacl) AS x ORDER BY 1)) FROM pg_foreign_server AS s
    UNION ALL
    SELECT format('mapping %s %s %s', m.srvname, m.usename, m.umoptions) FROM pg_user_mappings AS m
    UNION ALL
    SELECT format('foreign table %s %s', f.ftrelid::regclass, f.ftoptions) FROM pg_foreign_table AS f
    UNION ALL
    SELECT format('default privileges %s %s %s %s', d.defaclrole::regrole, d.defaclnamespace::regnamespace,
        d.defaclobjtype, ARRAY(SELECT x::text FROM unnest(d.defaclacl) AS x ORDER BY 1)) FROM pg_default_acl AS d
    UNION ALL
    SELECT format('extension %s', extname) FROM pg_extension
) AS lines (line)
ORDER BY line COLLATE "C"
