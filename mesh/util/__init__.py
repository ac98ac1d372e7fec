"""Support without knowledge of the mesh: thread offload, pacing, the nft runner, logging."""
