"""Exchange rates: set through the API or read from the ECB's list, and refused where they are implausible."""
