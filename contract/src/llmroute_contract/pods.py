"""Names by which the operator, its injector and the pods with a gateway know one another.

Owns the labels, annotations, container, volumes, folders and ports of an injected gateway. What is put into a pod is
the injector's to decide, what is read from pods the controller's.
"""

INJECT_LABEL = "llmroute.dev/inject"
"""On a pod or its namespace: `"true"` asks for a gateway; `"false"` on the pod declines one."""
GATEWAY_LABEL = "llmroute.dev/gateway"
"""On each pod that has been given a gateway, by the injector: the gateway's name. By it the controller finds them."""
GATEWAY_ANNOTATION = "llmroute.dev/gateway"
"""On a pod, by its author: which gateway of its namespace (without it, DEFAULT_GATEWAY)."""
CLIENT_ANNOTATION = "llmroute.dev/client"
"""On a pod, by its author: the client whose key the app containers are given."""
REVISION_ANNOTATION = "llmroute.dev/revision"
"""On a pod, by the controller: the revision last written. Its change makes kubelet sync the pod's volumes at once."""

ANNOTATION_PREFIX = "llmroute.dev/"

DEFAULT_GATEWAY = "default"
GATEWAY_CONTAINER = "llmroute-gateway"
CONFIG_VOLUME = "llmroute-config"
CONFIG_DIRECTORY = "/var/run/llmroute/config"
SECRETS_DIRECTORY = "/var/run/llmroute/secrets"
"""One folder a Secret, one file an entry."""
VOLUME_PREFIX = "llmroute-"
"""Of the names of all volumes that the injector adds."""

DATA_PORT = 8790
"""On the pod's loopback."""
ADMIN_PORT = 8791
"""On the pod's address."""
ADMIN_PORT_NAME = "llmroute-admin"
"""Of the container's port, for PodMonitors and the controller; a pod may have another number."""
