//! Several real nats-servers as one cluster on loopback: kill, freeze, cut off and restart its nodes, find a
//! leader.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::jetstream;
use super::nats::{NatsOptions, NatsServer};
use super::port::PortLease;
use super::relay::{LOOK, Link, Relay};
use super::wait::{PATIENCE, eventually};

/// From the start to a leader of JetStream and of a stream: elections take up to 10 s each.
const ELECTION_DEADLINE: Duration = Duration::from_secs(60);
/// For one question to a node that may have no answer.
const ASK_TIMEOUT: Duration = Duration::from_millis(300);

/// The nodes are `n0`, `n1` and so on; each method takes the index.
pub struct NatsCluster {
    nodes: Vec<Node>,
    /// Ports of the routes between the nodes.
    _routes: Vec<PortLease>,
    /// What each node reaches the others through: its index, the other's, and the link.
    links: Vec<(usize, usize, Relay)>,
}

struct Node {
    server: NatsServer,
    /// Neither killed, nor paused, nor cut off.
    answers: bool,
}

impl NatsCluster {
    /// `count` nodes; returns when JetStream has a leader and each node answers.
    pub fn start(count: usize) -> NatsCluster {
        Self::start_with(count, &NatsOptions::default())
    }

    /// The same with options for each node.
    pub fn start_with(count: usize, options: &NatsOptions) -> NatsCluster {
        let routes: Vec<PortLease> = (0..count).map(|_| PortLease::take()).collect();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let links: Vec<(usize, usize, Relay)> = pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| (from, to, Relay::start(routes[to].port()).expect("a relay can listen")))
            .collect();
        let nodes = routes.iter().enumerate().map(|(index, lease)| {
            let mut options = options.clone();
            let of_node = links.iter().filter(|(from, ..)| *from == index);
            let urls: Vec<String> = of_node.map(|(_, _, link)| format!("\"{}\"", link.url())).collect();
            // The others tell each other that address, where nobody listens: no node is reached around a
            // link.
            options.config_lines.push(format!(
                "server_name: n{index}\ncluster {{ name: pyoco, listen: \"127.0.0.1:{}\", \
                 advertise: \"127.0.0.1:1\", routes: [{}] }}",
                lease.port(),
                urls.join(", "),
            ));
            Node { server: NatsServer::spawn(options), answers: true }
        });
        let nodes = nodes.collect::<Vec<_>>();
        let mut cluster = NatsCluster { nodes, _routes: routes, links };
        for node in &mut cluster.nodes {
            node.server.wait_ready();
        }
        cluster
    }

    /// Of one node, for clients that know no other.
    pub fn url(&self, node: usize) -> String {
        self.nodes[node].server.url()
    }

    /// Of all nodes, as `PYOCO_NATS_URL` takes them.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(|node| node.server.url()).collect();
        urls.join(",")
    }

    /// A node, for calls of [`jetstream`].
    pub fn node(&self, node: usize) -> &NatsServer {
        &self.nodes[node].server
    }

    /// A node that answers.
    pub fn any(&self) -> &NatsServer {
        &self.nodes.iter().find(|node| node.answers).expect("a node that answers").server
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].answers = false;
        self.nodes[node].server.kill();
    }

    /// SIGTERM: the node hands over what it leads.
    pub fn stop(&mut self, node: usize) {
        self.nodes[node].answers = false;
        self.nodes[node].server.stop();
    }

    /// SIGSTOP: its connections stay open and it does not answer.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].answers = false;
        self.nodes[node].server.pause();
    }

    /// SIGCONT, after [`NatsCluster::pause`].
    pub fn resume(&mut self, node: usize) {
        self.nodes[node].server.resume();
        self.nodes[node].answers = true;
    }

    /// Cuts a node off from the others: its clients reach it, and no byte passes to another node.
    pub fn cut_off(&mut self, node: usize) {
        self.nodes[node].answers = false;
        self.set_links(node, Link::Silent);
    }

    /// Ends what [`NatsCluster::cut_off`] began.
    pub fn rejoin(&mut self, node: usize) {
        // What has waited in the links is out of date, as it is after a real partition.
        self.set_links(node, Link::Cut);
        std::thread::sleep(LOOK * 4);
        self.set_links(node, Link::Open);
        self.nodes[node].answers = true;
    }

    fn set_links(&self, node: usize, link: Link) {
        let of_node = self.links.iter().filter(|(from, to, _)| *from == node || *to == node);
        of_node.for_each(|(_, _, relay)| relay.set(link));
    }

    /// Starts a node again on its ports and store; returns when it answers, which needs a majority.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].server.restart();
        self.nodes[node].answers = true;
    }

    /// The node that leads a stream, as the nodes that answer know it.
    pub fn leader(&self, stream: &str) -> Option<usize> {
        let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), b"")?;
        let name = info["cluster"]["leader"].as_str()?;
        name.strip_prefix('n')?.parse().ok()
    }

    /// Waits until a node that answers leads the stream.
    pub fn wait_leader(&self, stream: &str) -> usize {
        eventually(ELECTION_DEADLINE, &format!("a leader of {stream}"), || {
            self.leader(stream).filter(|node| self.nodes[*node].answers)
        })
    }

    /// Makes `node` the leader of a stream.
    pub fn move_leader(&self, stream: &str, node: usize) {
        let body = format!("{{\"placement\": {{\"preferred\": \"n{node}\"}}}}");
        eventually(ELECTION_DEADLINE, &format!("n{node} leads {stream}"), || {
            if self.leader(stream) == Some(node) {
                return Some(());
            }
            self.ask(&format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), body.as_bytes());
            None
        });
    }

    /// Waits until a message is stored under `subject` by somebody who only speaks to nodes that answer and
    /// asks again and again: when NATS itself is back. When that was.
    pub fn wait_stored(&self, subject: &str) -> Instant {
        eventually(ELECTION_DEADLINE, &format!("NATS stores under {subject}"), || {
            self.ask(subject, b"{}").filter(|ack| ack["seq"].as_u64() > Some(0))
        });
        Instant::now()
    }

    /// Waits until all replicas of a stream are current.
    pub fn wait_current(&self, stream: &str) {
        eventually(PATIENCE + ELECTION_DEADLINE, &format!("all replicas of {stream} are current"), || {
            let info = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), b"")?;
            let replicas = info["cluster"]["replicas"].as_array()?;
            let current = |replica: &Value| replica["current"] == true && replica["offline"] != true;
            (replicas.len() + 1 == self.nodes.len() && replicas.iter().all(current)).then_some(())
        });
    }

    /// One request to a node that answers; `None` without an answer in time.
    fn ask(&self, subject: &str, payload: &[u8]) -> Option<Value> {
        let answer = jetstream::request_within(self.any(), subject, payload, ASK_TIMEOUT).ok()?;
        serde_json::from_slice(&answer).ok()
    }
}
