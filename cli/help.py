"""The layout of `--help`: the shape of the arguments, options in groups, examples that can be pasted.

A parameter's group is its `rich_help_panel`, which Typer passes on and prints only with Rich.
"""

from __future__ import annotations

from typing import Any

ARGUMENTS, NODE, REQUEST, TRUST = "Arguments", "Node options", "Request options", "Trust options"
COMMAND, FLEET, JOB = "Command options", "Options for several nodes", "Job options"
CONNECTION, OUTPUT, OTHER = "Connection options", "Output options", "Other options"
SECTIONS = (ARGUMENTS, NODE, JOB, COMMAND, FLEET, REQUEST, TRUST, CONNECTION, OUTPUT, OTHER)

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "zmesh": (
        ("Two nodes, each in a terminal of its own", "zmesh node --id hub --listen tcp://0.0.0.0:7323 --insecure"),
        ("", "zmesh node --id edge-7 --peer tcp://hub:7323 --insecure"),
        ("On the machine of one of them", "zmesh send edge-7 echo:echo hello"),
    ),
    "zmesh node": (
        ("A node that others can link to", "zmesh node --id hub --listen tcp://0.0.0.0:7323 --insecure"),
        ("A node behind NAT: it dials, and listens nowhere", "zmesh node --id edge-7 --peer tcp://hub:7323 --insecure"),
        ("The same with settings from the environment", "ZMESH_PEERS=tcp://hub:7323 ZMESH_INSECURE=1 zmesh node"),
        ("Settings from a file", "zmesh node --config node.toml"),
    ),
    "zmesh ping": (
        ("Four pings, one a second", "zmesh ping edge-7"),
        ("A hundred, each when the one before is answered", "zmesh ping edge-7 -c 100 -i 0"),
        ("On a machine that runs no node", "zmesh ping edge-7 --peer tcp://hub:7323 --insecure"),
        ("All nodes", "zmesh ping --all"),
        ("Those with a tag", "zmesh ping tag:gpu"),
    ),
    "zmesh send": (
        ("Text as the payload", "zmesh send edge-7 echo:echo hello"),
        ("JSON as the payload, and 10 seconds for the reply", "zmesh send edge-7 sleep:execute 0.5 --timeout 10"),
        ("Metadata beside the payload", "zmesh send edge-7 echo:echo hello -H user=ada"),
        ("A file as the payload", "zmesh send edge-7 digest:sha256 @backup.tar"),
        ("Standard input as the payload, replies to a file", "gzip <log | zmesh send edge-7 echo:echo - -o log.gz"),
    ),
    "zmesh run": (
        ("A command at a node", "zmesh run edge-7 -- uname -a"),
        ("A pipeline of a shell there", "zmesh run edge-7 --shell -- 'ps aux | wc -l'"),
        ("Its standard input from here", "zmesh run edge-7 -- sha256sum <backup.tar"),
        ("A terminal there", "zmesh run edge-7 -t -- top"),
        ("All nodes with a tag but one", "zmesh run 'tag:gpu,!edge-9' -- uptime"),
        ("One node first, then four at a time", "zmesh run --all --canary 1 --max-parallel 4 -- true"),
        ("Equal outputs once", "zmesh run --all --group -- uname -r"),
    ),
    "zmesh cp": (
        ("A file to a node, and one from it", "zmesh cp notes.txt edge-7:/tmp/"),
        ("", "zmesh cp edge-7:/var/log/syslog ."),
        ("A directory and all in it", "zmesh cp -r site edge-7:/srv/www"),
        ("From one node to another", "zmesh cp edge-7:/srv/db.dump store:/backup/"),
        ("To all nodes with a tag, two at a time", "zmesh cp app.tar --to tag:gpu --max-parallel 2 /srv/"),
    ),
    "zmesh forward": (
        ("A web server at a node, at http://localhost:8080 here", "zmesh forward 8080 edge-7:80"),
        ("A database that the node reaches", "zmesh forward 5432 edge-7:db.internal:5432"),
        ("A service that the node exposes by a name", "zmesh forward 8080 edge-7:web"),
    ),
    "zmesh expose": (
        ("A web server of this machine, as NODE:web", "zmesh expose web 8000"),
        ("Another host's, if [tcp] targets has it", "zmesh expose printer 10.0.0.9:9100"),
    ),
    "zmesh nc": (
        ("What a server says first", "zmesh nc edge-7 25 </dev/null"),
        ("A login at a node by OpenSSH", "ssh -o ProxyCommand='zmesh nc %h %p' ada@edge-7"),
    ),
    "zmesh job": (
        ("A command that goes on without you", "zmesh job submit edge-7 -- make -C /srv/app all"),
        ("What became of it, from any node", "zmesh job ls edge-7"),
    ),
    "zmesh job submit": (
        ("A command", "zmesh job submit edge-7 -- make -C /srv/app all"),
        ("A directive with a payload", "zmesh job submit edge-7 sleep:execute 600"),
        ("Once, however often this is run", "zmesh job submit edge-7 --key b-17 -- /srv/build 17"),
        ("Again when its node has started anew", "zmesh job submit edge-7 --restart 3 -- backup"),
        ("At all nodes with a tag", "zmesh job submit tag:gpu --shell -- 'df -h >/tmp/df'"),
    ),
    "zmesh job ls": (
        ("At all nodes", "zmesh job ls"),
        ("Those that wait or run at one", "zmesh job ls edge-7 --state queued --state running"),
        ("For a program", "zmesh job ls edge-7 --json"),
    ),
    "zmesh job show": (("", "zmesh job show edge-7/3f9a8b0c4d5e6f70"),),
    "zmesh job attach": (
        ("All of its output, up to its end", "zmesh job attach edge-7/3f9a8b0c4d5e6f70"),
        ("From a byte on", "zmesh job attach edge-7/3f9a8b0c --from 4096"),
    ),
    "zmesh job logs": (
        ("So far", "zmesh job logs edge-7/3f9a8b0c4d5e6f70"),
        ("and what comes", "zmesh job logs -f edge-7/3f9a8b0c4d5e6f70"),
    ),
    "zmesh job result": (("", "zmesh job result edge-7/3f9a8b0c4d5e6f70 >out"),),
    "zmesh job cancel": (("", "zmesh job cancel edge-7/3f9a8b0c4d5e6f70"),),
    "zmesh job rm": (
        ("", "zmesh job rm edge-7/3f9a8b0c4d5e6f70"),
        ("Also one that runs", "zmesh job rm --force edge-7/3f9a8b0c4d5e6f70"),
    ),
    "zmesh nodes": (
        ("All nodes", "zmesh nodes"),
        ("Those with a tag, but for one", "zmesh nodes 'tag:gpu,!edge-9'"),
        ("As another node sees them", "zmesh nodes --at edge-7"),
        ("For a program", "zmesh nodes --json"),
    ),
    "zmesh trace": (
        ("The path from the node where the command joins", "zmesh trace edge-7"),
        ("That between two others", "zmesh trace edge-7 --at hub"),
        ("For a program", "zmesh trace edge-7 --json"),
    ),
    "zmesh why": (
        ("Why edge-7 is reached as it is", "zmesh why edge-7"),
        ("From another node", "zmesh why edge-7 --at hub"),
        ("For a program", "zmesh why edge-7 --json"),
    ),
    "zmesh graph": (
        ("For Graphviz", "zmesh graph"),
        ("A drawing", "zmesh graph --format svg >mesh.svg"),
        ("For a program", "zmesh graph --format json"),
    ),
    "zmesh top": (
        ("All nodes, until q or Ctrl-C", "zmesh top"),
        ("Two samples of some, by bytes out", "zmesh top tag:gpu --sort out -n 2 -i 1"),
        ("For a program", "zmesh top -n 1 --json"),
    ),
    "zmesh dashboard": (
        ("Prints the address to open in a browser on this machine", "zmesh dashboard"),
        ("At a port of your choice, for ssh -L", "zmesh dashboard --port 8323"),
    ),
    "zmesh status": (
        ("The state of the node where the command joins", "zmesh status"),
        ("That of another node", "zmesh status edge-7"),
        ("For a program", "zmesh status edge-7 --json"),
    ),
    "zmesh routes": (
        ("The routes of the node where the command joins", "zmesh routes"),
        ("Those of another node", "zmesh routes edge-7"),
        ("For a program", "zmesh routes --json"),
    ),
    "zmesh cancel": (
        ("List the work that runs at a node, with its ids", "zmesh ping edge-7 -c 1 --json"),
        ("Stop one, at whichever node it runs", "zmesh cancel 075b64dec461687e564ae300b4f1fc04"),
        ("Stop it at one node", "zmesh cancel 075b64dec461687e564ae300b4f1fc04 edge-7"),
    ),
    "zmesh init": (
        ("A mesh, at the machine that others can dial", "zmesh init --name lab --listen tcp://0.0.0.0:7323"),
        ("Behind a port that is forwarded", "zmesh init --listen tcp://*:7323 --url tcp://hub:7323"),
    ),
    "zmesh invite": (
        ("", "zmesh invite edge-7 --tag gpu"),
        ("For a day", "zmesh invite ada --expires 86400"),
    ),
    "zmesh invites": (("", "zmesh invites ls"),),
    "zmesh invites ls": (("", "zmesh invites ls"),),
    "zmesh invites rm": (("", "zmesh invites rm edge-7"),),
    "zmesh join": (
        ("With a ticket, as 'zmesh invite' prints it", 'zmesh join "$ticket"'),
        ("Without a network: make a key here", "zmesh join --offline edge-7"),
        ("and when it was signed", "zmesh join edge-7.signed"),
    ),
    "zmesh authority": (("", "zmesh authority ls"),),
    "zmesh authority ls": (("", "zmesh authority ls"),),
    "zmesh authority rotate": (
        ("Make the next one", "zmesh authority rotate"),
        ("and later, when all know of it", "zmesh authority rotate --finish"),
    ),
    "zmesh authority sign": (("", "zmesh authority sign edge-7.pub --tag gpu"),),
    "zmesh authority export": (("", "zmesh authority export"),),
    "zmesh revoke": (("", "zmesh revoke edge-7 --reason 'stolen'"),),
    "zmesh bundle": (
        ("The state of all nodes, to send along with a bug report", "zmesh bundle -o report.tar.gz"),
        ("Of two", "zmesh bundle hub,edge-7"),
    ),
    "zmesh doctor": (
        ("The node here, or where the command joins", "zmesh doctor"),
        ("Another node", "zmesh doctor edge-7"),
        ("For a health check", "zmesh doctor --quiet"),
    ),
    "zmesh events": (
        ("The last 50 of the node here", "zmesh events"),
        ("The last hour of another node", "zmesh events edge-7 --since 1h"),
        ("What happens from now on", "zmesh events edge-7 -f -n 1"),
    ),
    "zmesh reload": (("The only node here, or that of the identity", "zmesh reload"), ("", "zmesh reload edge-7")),
    "zmesh completion": (("For bash, in ~/.bashrc", "source <(zmesh completion bash)"),),
    "zmesh service": (("", "zmesh service install"),),
    "zmesh service install": (
        ("With the identity in use", "zmesh service install"),
        ("With settings from a file", "zmesh service install --config node.toml"),
        ("Look at the unit first", "zmesh service install --print"),
    ),
    "zmesh service uninstall": (("", "zmesh service uninstall"),),
    "zmesh service status": (("", "zmesh service status"),),
    "zmesh config": (("", "zmesh config show --config node.toml"),),
    "zmesh config check": (("", "zmesh config check --config node.toml"),),
    "zmesh config show": (("", "zmesh config show --config node.toml"),),
    "zmesh identity": (("", "zmesh identity"), ("For a program", "zmesh identity --json")),
    "zmesh context": (("", "zmesh context ls"),),
    "zmesh context ls": (("", "zmesh context ls"),),
    "zmesh context use": (("", "zmesh context use lab"),),
    "zmesh context rm": (("", "zmesh context rm lab"),),
    "zmesh demo": (("", "zmesh demo"),),
}
"""For each command, what an example shows, and the example; lines of at most 58 characters."""


def usage_pieces(parameters: list[Any]) -> list[str]:
    """The arguments, then [OPTIONS], then what follows `--`."""
    arguments = [each.metavar for each in parameters if each.param_type_name == "argument"]
    return sorted([*arguments, "[OPTIONS]"], key=lambda piece: (piece.startswith("-- "), piece == "[OPTIONS]"))


def write_options(parameters: list[Any], context: Any, formatter: Any) -> None:
    """Write a section for the arguments, and one for each group of options."""
    sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
    for each in parameters:
        if each.param_type_name == "argument":
            sections[ARGUMENTS].append((each.metavar, each.help or ""))
        elif (row := each.get_help_record(context)) is not None:
            sections[getattr(each, "rich_help_panel", None) or OTHER].append(row)
    for name, rows in sections.items():
        if rows:
            with formatter.section(name):
                formatter.write_dl(rows)


def write_examples(command_path: str, formatter: Any) -> None:
    """Write the examples of a command, each below a comment."""
    with formatter.section("Examples"):
        for comment, line in EXAMPLES[command_path]:
            if comment:
                formatter.write(f"  # {comment}\n")
            formatter.write(f"  {line}\n")
