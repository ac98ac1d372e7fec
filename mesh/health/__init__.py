"""Health checks: when each endpoint is probed, how, and what the results mean for traffic."""
