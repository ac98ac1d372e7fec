"""Support code that knows nothing of the mesh: threads, pacing, the nft runner, sockets, histograms, logging."""
