GRANT USAGE ON SCHEMA "federation_link" TO "röle ""x"" % $$", PUBLIC;

