DO $federation$
DECLARE
    patience CONSTANT text := current_setting('lock_timeout');
    -- Less than the app's backends wait before they look for a deadlock, of which they would be the victims.
    turn CONSTANT double precision := (
        SELECT least(max(s.setting::float) FILTER (WHERE s.name = 'deadlock_timeout') * 0.75,
            nullif(max(s.setting::float) FILTER (WHERE s.name = 'lock_timeout'), 0))
        FROM pg_catalog.pg_settings AS s WHERE s.name IN ('deadlock_timeout', 'lock_timeout'));
    began CONSTANT timestamptz := clock_timestamp();
    statement text;
BEGIN
    FOREACH statement IN ARRAY ARRAY['LOCK TABLE "public"."we""ird Täble" IN ACCESS EXCLUSIVE MODE', 'LOCK TABLE "public"."we""ird Täble 2 {x}" IN ACCESS EXCLUSIVE MODE'] LOOP
        PERFORM set_config('lock_timeout',
            greatest(1, ceil(turn - extract(epoch FROM clock_timestamp() - began) * 1000)) || 'ms', true);
        EXECUTE statement;
    END LOOP;
    PERFORM set_config('lock_timeout', patience, true);
END $federation$;

