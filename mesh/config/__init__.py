"""The text that users write, settings and labels, as typed values or as refusals with a remedy. Pure."""
