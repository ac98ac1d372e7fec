"""The store of a cluster: etcd, spoken to over its JSON gateway, so that nothing native has to be installed."""

from mesh.store.etcd.client import EtcdClient, EtcdCredentials
from mesh.store.etcd.store import EtcdStore

__all__ = ["EtcdClient", "EtcdCredentials", "EtcdStore"]
