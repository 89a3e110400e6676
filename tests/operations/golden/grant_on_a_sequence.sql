GRANT USAGE ON SEQUENCE "public"."we""ird Täble 2 {x}_""count"" % :x_seq" TO "federation_link";

