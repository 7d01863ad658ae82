"""A search over settings: what Optuna proposes is trained as a sweep's job."""
