CREATE TEMPORARY TABLE federation_secret (password text NOT NULL) ON COMMIT DROP;

\if :{?FEDERATION_LINK_PASSWORD}
\setenv FEDERATION_LINK_PASSWORD :FEDERATION_LINK_PASSWORD
\endif
\copy pg_temp.federation_secret (password) FROM PROGRAM 'printenv FEDERATION_LINK_PASSWORD' WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')

DO $federation$
BEGIN
    IF current_setting('pg_stat_statements.track', true) = 'all' THEN
        BEGIN
            SET LOCAL pg_stat_statements.track = 'top';
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'pg_stat_statements.track is "all" and would keep the link''s password'
                USING ERRCODE = 'ZF009', HINT = format('a superuser runs: ALTER ROLE %I IN DATABASE %I '
                    'SET pg_stat_statements.track = top', session_user, current_database());
        END;
    END IF;
    EXECUTE 'ALTER USER MAPPING FOR "service_role" SERVER "hospital" OPTIONS (SET user ''federation_link'')';
    BEGIN
        EXECUTE 'ALTER USER MAPPING FOR "service_role" SERVER "hospital" OPTIONS (SET password ' || quote_literal((SELECT password FROM pg_temp.federation_secret)) || ')';
    EXCEPTION WHEN query_canceled OR OTHERS THEN
        RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
    END;
END $federation$;

DROP TABLE pg_temp.federation_secret;

