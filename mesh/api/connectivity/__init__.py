"""The connectivity test: which requests to send, what came back, where the others were lost. Pure."""
