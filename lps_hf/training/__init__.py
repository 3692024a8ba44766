"""Training: a Trainer that knows what is pretrained and what is new, and its arguments."""
