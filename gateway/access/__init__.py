"""Access to the API: keys, their scopes and origins, and the limits of what is accepted."""
