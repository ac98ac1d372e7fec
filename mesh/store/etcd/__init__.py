"""The store of a cluster: etcd, over its JSON gateway, so that no native client library is needed."""

from mesh.store.etcd.client import EtcdClient, EtcdCredentials
from mesh.store.etcd.store import EtcdStore

__all__ = ["EtcdClient", "EtcdCredentials", "EtcdStore"]
