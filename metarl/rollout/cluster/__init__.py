"""Episodes on the workers of a Ray cluster. Nothing else imports Ray, which is an extra."""
