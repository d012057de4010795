"""What is read from Stripe besides webhooks: lost events, lists, lookups of single payment intents."""
