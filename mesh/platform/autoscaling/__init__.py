"""How many instances a service has, by its load: usage from cgroup files, one pure policy, and what it decides."""
