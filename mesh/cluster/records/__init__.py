"""The records that workers keep in the store: their keys, values and the view built from them. Pure."""
