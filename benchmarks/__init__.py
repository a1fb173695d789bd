"""Training and inference of the networks against torch's own ways to run them, and against the peers' networks."""
