REVOKE SELECT ON TABLE "public"."we""ird Täble 3 %s :x" FROM "röle ""x"" % $$";

