"""What workers share and know of each other: records, claims, membership, failure detection."""
