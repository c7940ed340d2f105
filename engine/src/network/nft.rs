//! [`Firewall`] by nftables over netlink. The picture is in `firewall.rs`.

use std::net::{IpAddr, Ipv4Addr};

use nlink::Nftables;
use nlink::netlink::Connection;
use nlink::netlink::nftables::{
    BaseChain, Chain, CtState, CtStatus, Family, FibFlags, FilterHook, Hook, NFT_MSG_NEWTABLE,
    NFTA_TABLE_NAME, NatHook, Policy, Priority, RawMessage, Rule, Transaction,
};
use nlink::netlink::types::route::RouteType;

use super::firewall::{BridgeRules, Firewall, FirewallError, Redirect, Rules};
use super::netlink::on_netlink_thread;
use super::ports::Protocol;

/// One engine's table.
#[derive(Debug)]
pub(crate) struct NftFirewall {
    table: String,
}

impl NftFirewall {
    pub(crate) fn new(engine: &str) -> Self {
        Self { table: format!("docker-rs-{engine}") }
    }
}

impl Firewall for NftFirewall {
    fn apply(&self, rules: &Rules) -> Result<(), FirewallError> {
        let failed = |source| FirewallError::Apply { table: self.table.clone(), source };
        on_netlink_thread(|| async {
            let connection = Connection::<Nftables>::new().map_err(failed)?;
            let transaction =
                table(connection.transaction(), &self.table, rules).map_err(failed)?;
            transaction.commit(&connection).await.map_err(failed)?;
            for bridge in &rules.bridges {
                accept_in_forward(&connection, &self.table, &bridge.name).await.map_err(
                    |source| FirewallError::Forward { bridge: bridge.name.clone(), source },
                )?;
            }
            Ok(())
        })
        .map_err(FirewallError::Thread)?
    }

    fn remove(&self) -> Result<(), FirewallError> {
        let failed = |source| FirewallError::Remove { table: self.table.clone(), source };
        on_netlink_thread(|| async {
            let connection = Connection::<Nftables>::new().map_err(failed)?;
            connection
                .del_table_if_exists(self.table.as_str(), Family::Ip)
                .await
                .map_err(failed)?;
            forget_in_forward(&connection, &self.table).await.map_err(failed)
        })
        .map_err(FirewallError::Thread)?
    }
}

/// The table from nothing: adding before deleting makes the deletion valid whether or not it was there.
fn table(transaction: Transaction, name: &str, rules: &Rules) -> nlink::Result<Transaction> {
    let chain = |chain: &str| Ok::<_, nlink::Error>(Chain::new(name, chain)?.family(Family::Ip));
    let mut t = transaction
        .raw(existing_table(name))
        .del_table(name, Family::Ip)
        .add_table(name, Family::Ip)
        .add_chain(chain("raw")?.base(BaseChain::filter(FilterHook::Prerouting, Priority::Raw)))
        .add_chain(chain("ports")?)
        .add_chain(chain("prerouting")?.base(BaseChain::nat(NatHook::Prerouting, Priority::DstNat)))
        .add_chain(chain("output")?.base(BaseChain::nat(NatHook::Output, Priority::DstNat)))
        .add_chain(
            chain("postrouting")?.base(BaseChain::nat(NatHook::Postrouting, Priority::SrcNat)),
        )
        .add_chain(
            chain("forward")?.base(BaseChain::filter(FilterHook::Forward, Priority::Filter)),
        );
    let rule = |chain: &str| Rule::new(name, chain).family(Family::Ip);
    for chain in ["prerouting", "output"] {
        let local = rule(chain).match_fib_type(FibFlags::DADDR, RouteType::Local);
        t = t.add_rule(local.try_jump("ports")?);
    }
    for bridge in &rules.bridges {
        t = bridge_rules(t, &rule, bridge);
    }
    Ok(t)
}

/// "Add the table if it is not there": without `NLM_F_EXCL`, which nlink's own builder sets.
fn existing_table(name: &str) -> RawMessage {
    let mut attribute = Vec::with_capacity(name.len() + 8);
    let length = u16::try_from(name.len() + 5).unwrap_or(u16::MAX);
    attribute.extend(length.to_ne_bytes());
    attribute.extend(NFTA_TABLE_NAME.to_ne_bytes());
    attribute.extend(name.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    RawMessage::new(NFT_MSG_NEWTABLE, Family::Ip).flags(NLM_F_CREATE).attrs(attribute)
}

/// linux/netlink.h.
const NLM_F_CREATE: u16 = 0x400;

fn bridge_rules(
    mut t: Transaction,
    rule: &impl Fn(&str) -> Rule,
    bridge: &BridgeRules,
) -> Transaction {
    let name = bridge.name.as_str();
    let (network, prefix) = (bridge.subnet.network(), bridge.subnet.prefix_len());
    let loopback = Ipv4Addr::new(127, 0, 0, 0);
    t = t.add_rule(rule("raw").match_iif(name).match_daddr_v4(loopback, 8).drop());
    for redirect in &bridge.published {
        t = t.add_rule(redirect_rule(rule("ports"), redirect));
    }
    t = t.add_rule(rule("postrouting").match_saddr_v4(loopback, 8).match_oif(name).masquerade());
    // Container → host address → container of the same bridge: the answer has to come back through us.
    t = t.add_rule(
        rule("postrouting")
            .match_saddr_v4(network, prefix)
            .match_oif(name)
            .match_ct_status(CtStatus::DST_NAT)
            .masquerade(),
    );
    if bridge.masquerade {
        t = t.add_rule(
            rule("postrouting").match_saddr_v4(network, prefix).match_oif_not(name).masquerade(),
        );
    }
    let answered = CtState(CtState::ESTABLISHED.bits() | CtState::RELATED.bits());
    t = t
        .add_rule(rule("forward").match_oif(name).match_ct_state(answered).accept())
        .add_rule(rule("forward").match_oif(name).match_ct_status(CtStatus::DST_NAT).accept());
    if bridge.inter_container {
        t = t.add_rule(rule("forward").match_iif(name).match_oif(name).accept());
    }
    t.add_rule(rule("forward").match_oif(name).drop())
}

fn redirect_rule(rule: Rule, redirect: &Redirect) -> Rule {
    let published = &redirect.published;
    let rule = if published.host_ip.is_unspecified() {
        rule
    } else {
        rule.match_daddr(IpAddr::V4(published.host_ip), 32)
    };
    let rule = match published.container.protocol {
        Protocol::Tcp => rule.match_tcp_dport(published.host_port),
        Protocol::Udp => rule.match_udp_dport(published.host_port),
    };
    rule.dnat(redirect.container, Some(published.container.port))
}

/// Where the host's `ip filter FORWARD` (iptables-nft: Docker, ufw) drops by policy, an accept in a table of
/// our own does not help: the packet must pass both. So two accepts for the bridge stand there too, in a
/// form iptables-nft can list, right after the first rule (Docker's jump to DOCKER-USER). What may not
/// pass is dropped in our own chain.
async fn accept_in_forward(
    connection: &Connection<Nftables>,
    mark: &str,
    bridge: &str,
) -> nlink::Result<()> {
    let forward = Hook::Forward.number(Family::Ip);
    let chains = connection.list_chains().await?;
    let drops = chains.iter().any(|chain| {
        chain.family == Family::Ip
            && chain.table == "filter"
            && chain.name == "FORWARD"
            && chain.hook == Some(forward)
            && chain.policy == Some(Policy::Drop.to_u32())
    });
    if !drops {
        return Ok(());
    }
    let rules = connection.list_rules("filter", Family::Ip).await?;
    let standing: Vec<_> = rules.iter().filter(|rule| rule.chain == "FORWARD").collect();
    let comment = format!("{mark} {bridge}");
    if standing.iter().any(|rule| rule.comment_text.as_deref() == Some(comment.as_str())) {
        return Ok(());
    }
    let rule = || {
        let rule = Rule::new("filter", "FORWARD").family(Family::Ip).comment(&comment);
        match standing.first() {
            Some(first) => rule.position(first.handle),
            None => rule,
        }
    };
    connection
        .transaction()
        .add_rule(rule().match_iif(bridge).counter().accept())
        .add_rule(rule().match_oif(bridge).counter().accept())
        .commit(connection)
        .await
}

async fn forget_in_forward(connection: &Connection<Nftables>, mark: &str) -> nlink::Result<()> {
    let Ok(rules) = connection.list_rules("filter", Family::Ip).await else {
        return Ok(());
    };
    let prefix = format!("{mark} ");
    for rule in rules {
        let ours = rule.comment_text.as_deref().is_some_and(|text| text.starts_with(&prefix));
        if rule.chain == "FORWARD" && ours {
            connection.del_rule_if_exists("filter", "FORWARD", Family::Ip, rule.handle).await?;
        }
    }
    Ok(())
}
