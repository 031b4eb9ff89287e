"""What composes the parts: each verb from beginning to end. The command line and Python programs call these."""
