//! The document in Prometheus' text format. Made anew for each scrape, so that an agent that has left leaves no row behind. Pure.
//!
//! Labels are `agent` or `client` (the name, which need not be unique) and `peer` (which is). At most
//! [`MAX_LISTED`](crate::scheduler::core::overview::MAX_LISTED) of each.

use prometheus::core::Collector;
use prometheus::{Error, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::document::{Agent, Client, Document, Slots};

/// What [`text`] returns, for `Content-Type`.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Its labels' names.
const OF_AGENT: [&str; 2] = ["agent", "peer"];
const OF_CLIENT: [&str; 2] = ["client", "peer"];

/// The metrics that `document` comes to.
pub fn text(document: &Document) -> Result<String, Error> {
    let registry = Registry::new();
    coordinator(&registry, document)?;
    agents(&registry, &document.agents)?;
    clients(&registry, &document.clients)?;
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// Registers a metric, and returns it.
fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: Result<M, Error>) -> Result<M, Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
    add(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
    add(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

/// What no gauge can hold is shown as the most that it can.
fn whole(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn coordinator(registry: &Registry, document: &Document) -> Result<(), Error> {
    let info = gauges(registry, "buildbee_coordinator_info", "Version of the coordinator.", &["version", "farm"])?;
    info.with_label_values(&[document.version, &document.farm]).set(1);
    let plain = |name: &str, help: &str, value: i64| -> Result<(), Error> {
        gauges(registry, name, help, &[])?.with_label_values::<&str>(&[]).set(value);
        Ok(())
    };
    let uptime = whole(document.uptime_s);
    plain("buildbee_coordinator_uptime_seconds", "Time since the coordinator was started.", uptime)?;
    plain("buildbee_members", "Members that are enrolled and not revoked.", whole(document.members))?;
    plain("buildbee_agents", "Agents that lend slots.", whole(document.agents_total))?;
    plain("buildbee_clients", "Clients that call.", whole(document.clients_total))?;
    let slots = gauges(registry, "buildbee_slots", "Slots of all agents by state.", &["state"])?;
    for (state, count) in states(&document.slots) {
        slots.with_label_values(&[state]).set(count);
    }
    let help = "Synchronisations of members.";
    let calls = counters(registry, "buildbee_coordinator_calls_total", help, &["role"])?;
    calls.with_label_values(&["agent"]).inc_by(document.totals.n_agent_calls);
    calls.with_label_values(&["client"]).inc_by(document.totals.n_client_calls);
    let help = "Slots dealt to clients that did not hold them.";
    let dealt = counters(registry, "buildbee_coordinator_leases_dealt_total", help, &[])?;
    dealt.with_label_values::<&str>(&[]).inc_by(document.totals.n_deals);
    Ok(())
}

fn states(slots: &Slots) -> [(&'static str, i64); 3] {
    [("busy", whole(slots.busy)), ("leased", whole(slots.leased)), ("idle", whole(slots.idle))]
}

fn agents(registry: &Registry, agents: &[Agent]) -> Result<(), Error> {
    let help = "Slots of an agent by state.";
    let slots = gauges(registry, "buildbee_agent_slots", help, &["agent", "peer", "state"])?;
    let cores = gauges(registry, "buildbee_agent_cores", "Processor threads of an agent's machine.", &OF_AGENT)?;
    let help = "Load of an agent's machine, 1 for all of its cores.";
    let load = add(registry, GaugeVec::new(Opts::new("buildbee_agent_load_ratio", help), &OF_AGENT))?;
    let memory = gauges(registry, "buildbee_agent_memory_bytes", "Memory of an agent's machine.", &OF_AGENT)?;
    let help = "Memory of an agent's machine that is not in use.";
    let free = gauges(registry, "buildbee_agent_memory_free_bytes", help, &OF_AGENT)?;
    let toolchains = gauges(registry, "buildbee_agent_toolchains", "Toolchains that an agent holds.", &OF_AGENT)?;
    let help = "Time since an agent's last call.";
    let silence = add(registry, GaugeVec::new(Opts::new("buildbee_agent_silence_seconds", help), &OF_AGENT))?;
    for agent in agents {
        let labels = [agent.name.as_str(), agent.peer.as_str()];
        for (state, count) in states(&agent.slots) {
            slots.with_label_values(&[labels[0], labels[1], state]).set(count);
        }
        cores.with_label_values(&labels).set(whole(agent.cores));
        load.with_label_values(&labels).set(f64::from(agent.load_percent) / 100.0);
        memory.with_label_values(&labels).set(whole(agent.memory_bytes));
        free.with_label_values(&labels).set(whole(agent.memory_free_bytes));
        toolchains.with_label_values(&labels).set(whole(agent.toolchains_total));
        silence.with_label_values(&labels).set(seconds(agent.silent_ms));
    }
    Ok(())
}

fn clients(registry: &Registry, clients: &[Client]) -> Result<(), Error> {
    let gauge = |name: &str, help: &str| gauges(registry, name, help, &OF_CLIENT);
    let wanted = gauge("buildbee_client_slots_wanted", "Slots that a client could use.")?;
    let share = gauge("buildbee_client_slots_share", "Slots that are a client's fair share now.")?;
    let held = gauge("buildbee_client_slots_held", "Slots that a client may use.")?;
    let busy = gauge("buildbee_client_slots_busy", "Slots dealt to a client in which something runs.")?;
    for client in clients {
        let labels = [client.name.as_str(), client.peer.as_str()];
        wanted.with_label_values(&labels).set(whole(client.wanted));
        share.with_label_values(&labels).set(whole(client.share));
        held.with_label_values(&labels).set(whole(client.held));
        busy.with_label_values(&labels).set(whole(client.busy));
    }
    Ok(())
}

fn seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::sample;
    use super::*;

    #[test]
    fn every_metric_has_help_type_and_values() {
        let text = text(&sample()).unwrap();
        for line in [
            "# HELP buildbee_slots Slots of all agents by state.",
            "# TYPE buildbee_slots gauge",
            "buildbee_slots{state=\"busy\"} 2",
            "buildbee_agent_slots{agent=\"desk-a\",peer=\"010101010101\",state=\"leased\"} 1",
            "buildbee_agent_silence_seconds{agent=\"desk-b\",peer=\"020202020202\"} 1.5",
            "# TYPE buildbee_coordinator_leases_dealt_total counter",
            "buildbee_coordinator_leases_dealt_total 3",
            "buildbee_coordinator_calls_total{role=\"client\"} 20",
            "buildbee_client_slots_share{client=\"080808080808\",peer=\"080808080808\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn names_of_strangers_stay_in_their_quotes() {
        let text = text(&sample()).unwrap();
        let name = r#"client="<script>\"\\\nalert(1)</script>",peer="090909090909""#;
        assert!(text.contains(name), "{text}");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("buildbee_")), "{text}");
    }

    #[test]
    fn two_agents_may_have_one_name() {
        let mut document = sample();
        document.agents[1].name = "desk-a".to_owned();
        let text = text(&document).unwrap();
        assert_eq!(text.matches("buildbee_agent_cores{agent=\"desk-a\"").count(), 2);
    }
}
