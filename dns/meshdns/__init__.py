"""The name server: a zone of names, answered over UDP and TCP; everything else is forwarded.

It knows names and addresses, nothing of containers or load balancing.
"""
