DROP DOMAIN "public"."Dösis ""%""";

