ALTER SERVER "hospital" OPTIONS (ADD "application_name"  E'it''s a \\ % :x {y}	$$ €', SET "fetch_size" '5000', DROP "use_remote_estimate");

