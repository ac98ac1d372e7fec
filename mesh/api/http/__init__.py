"""The admin API over HTTP: server, authentication, actions, the event stream and the page."""
