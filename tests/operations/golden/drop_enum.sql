DROP TYPE "public"."mo""od %";

