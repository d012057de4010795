"""What is paid out to the beneficiaries of drives, never more than they are owed."""
