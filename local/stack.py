"""The services of docker-compose.scale.yml for a swarm, as `docker stack deploy` takes them. A swarm has no folder in common with the
caller, so files become configs and secrets; none of its ports is on loopback alone, so only nginx's is published."""

import hashlib
from pathlib import Path

# What a stack's service says as Compose's does.
SAME = ("image", "command", "entrypoint", "user", "read_only", "cap_drop", "healthcheck", "labels", "logging", "stop_signal",
        "stop_grace_period", "ulimits")
# The only door.
PUBLISHED = "nginx"
# The laboratory's page has no other guard than the loopback address, so a stack's nginx has no such page.
PAGE = ("/srv/", "/etc/coupon/lab.conf", "/etc/coupon/runtime/lab.conf")
# Services have addresses and no virtual one: nginx sees each replica, and no kernel has to have IPVS.
ADDRESSES = "dnsrr"
# How long the engine watches a new task before it goes on to the next one.
MONITOR = "10s"


class Stack:
    """Gathers what all services share while each of them is translated."""

    def __init__(self, project: dict, image: str, node: str):
        self.project, self.image, self.node = project, image, node
        self.prefix = project["name"]
        self.configs, self.secrets = {}, {}

    def document(self) -> dict:
        """All of the file that `docker stack deploy` reads."""
        services = {name: self.service(name, one) for name, one in self.project["services"].items()}
        # A crowd, or a Grafana of one's own, may join it.
        networks = {"front": {"attachable": True}, "back": {"internal": True}}
        volumes = dict.fromkeys(self.project["volumes"], {})
        return {"version": "3.9", "services": services, "networks": networks, "volumes": volumes, "configs": self.configs,
                "secrets": self.secrets}

    def service(self, name: str, one: dict) -> dict:
        made = {key: one[key] for key in SAME if one.get(key) is not None}
        if "build" in one:
            made["image"] = self.image
        # A variable without a value would be looked up where the stack is deployed.
        made["environment"] = {variable: value for variable, value in one.get("environment", {}).items() if value is not None}
        # A network of another container is not to be had; the exporter of the host then has one like everybody.
        made["networks"] = sorted(one.get("networks") or ["front"])
        ports = one.get("ports", []) if name == PUBLISHED else []
        made["ports"] = [{"target": port["target"], "published": int(port["published"]), "mode": "host"} for port in ports]
        made["volumes"], made["configs"] = self.files(one)
        made["secrets"] = [self.secret(use, one["user"]) for use in one.get("secrets", [])]
        made["deploy"] = self.deploy(one)
        return made

    def files(self, one: dict) -> tuple:
        """Its volumes, memory among them, and its configs: a folder has one for each file."""
        volumes = [{"type": "tmpfs", "target": target} for target in one.get("tmpfs", [])]
        configs = []
        for mount in one.get("volumes", []):
            if mount["type"] == "volume":
                volumes.append({key: mount[key] for key in ("type", "source", "target")})
                continue
            source, target = Path(mount["source"]), Path(mount["target"])
            for path in [source] if source.is_file() else sorted(found for found in source.rglob("*") if found.is_file()):
                inside = str(target / path.relative_to(source)) if path != source else str(target)
                if not inside.startswith(PAGE):
                    configs.append({"source": self.keep(self.configs, path), "target": inside, "mode": 0o444})
        return volumes, configs

    def secret(self, use: dict, user: str) -> dict:
        """Only the container's own user may read it."""
        uid, gid = user.split(":")
        path = Path(self.project["secrets"][use["source"]]["file"])
        return {"source": self.keep(self.secrets, path), "target": use["target"], "uid": uid, "gid": gid, "mode": 0o400}

    def keep(self, kept: dict, path: Path) -> str:
        """A config or a secret can never be changed: other contents have another name, and replace what uses them."""
        name = f"{path.name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        kept[name] = {"name": f"{self.prefix}_{name}", "file": str(path)}
        return name

    def deploy(self, one: dict) -> dict:
        said = {"endpoint_mode": ADDRESSES, "resources": one["deploy"]["resources"]}
        if one.get("ports") or any(mount["type"] == "volume" for mount in one.get("volumes", [])):
            # Its data, or its door, is where it was first started, and nowhere else.
            said["placement"] = {"constraints": [f"node.id == {self.node}"]}
        if one["restart"] == "no":
            # A step, which is taken again until it succeeds: nothing here waits for anything else.
            return said | {"mode": "replicated-job", "restart_policy": {"condition": "on-failure", "delay": "2s"}}
        # Where there can be any number, a successor is ready before its predecessor goes. A port and a volume have one user at a time.
        order = "start-first" if "replicas" in one["deploy"] else "stop-first"
        update = {"parallelism": 1, "order": order, "monitor": MONITOR}
        return said | {
            "replicas": one["deploy"].get("replicas", 1),
            "restart_policy": {"condition": "any", "delay": "1s"},
            "update_config": update | {"failure_action": "rollback"},
            "rollback_config": update,
        }
