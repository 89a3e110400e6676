DROP VIEW "public"."we""ird Täble 3 %s :x";

REVOKE ALL ON "federation_link"."we""ird Täble 3 %s :x" FROM "authenticated";

REVOKE ALL ON "federation_link"."we""ird Täble 3 %s :x" FROM "röle ""x"" % $$";

