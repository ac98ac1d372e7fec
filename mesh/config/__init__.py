"""What users write: settings and labels, as typed values or refusals with a remedy. Pure."""
