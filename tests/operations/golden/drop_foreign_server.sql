DROP SERVER "we""ird sërver %";

