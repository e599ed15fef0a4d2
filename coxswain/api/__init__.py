"""The REST API: the only way in. The CLI comes through the control socket, where file permissions are the credential."""
