"""The API's proxy: what is forwarded to the services, and the pledges and leaderboards made of replies."""
