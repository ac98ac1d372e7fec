"""The control loop: from the cluster view to the data plane and the names."""
