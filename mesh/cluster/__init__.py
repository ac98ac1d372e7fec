"""The state that workers share, and how they track one another: records, claims, membership, failure detection."""
