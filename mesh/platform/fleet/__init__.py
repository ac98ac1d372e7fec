"""The fleet: the engines that run the containers of services, as one."""
