use super::*;
use crate::signalling::HubIdentity;

fn options() -> HubTaskOptions {
    HubTaskOptions {
        id: HubTaskId(1),
        choice: HubChoice::Find { listen: Some(Ipv4Addr::LOCALHOST.into()) },
        own_hub: OwnHubOptions::default(),
        name: watch::channel(String::new()).1,
        instance: Instance::from_random(1),
        secrets: SecretStore::in_memory(),
        paths: KnownPaths::default(),
        events: mpsc::channel(1).0,
    }
}

/// Starts a hub with that identity on a port that leaves room for [`MAX_OTHER_PORTS`] more.
async fn hub(identity: HubIdentity) -> (Hub, u16) {
    loop {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
        let options = HubOptions { identity: identity.clone(), ..HubOptions::at(listen) };
        let hub = Hub::start(options).await.unwrap();
        let port = hub.address().port();
        if port < u16::MAX - MAX_OTHER_PORTS {
            return (hub, port);
        }
    }
}

#[tokio::test]
async fn a_hub_in_this_process_that_fails_is_reported_and_started_again() {
    let (events, mut received) = mpsc::channel(16);
    let options = HubTaskOptions { events, ..options() };
    let (hub, _) = hub(options.secrets.identity().clone()).await;
    let fail = hub.failure_trigger();
    let url = local_url(hub.address());
    let found = LocatedHub { url, embedded: Some(hub), is_this_users: true };
    let (hub, owner_keys) = (HubRef::Default, BTreeMap::new());
    let mut task = HubTask { hub, options, owner_keys, endpoint: None, is_down: false };
    let (_outgoing, mut messages) = mpsc::channel(1);
    let plant = async {
        while !matches!(received.recv().await.unwrap().event, HubEvent::Up { .. }) {}
        fail();
    };
    let (reason, ()) = tokio::join!(task.keep_connected(found, &mut messages), plant);
    assert!(matches!(reason, StopReason::Panicked("hub in this program")));
}

#[tokio::test]
async fn a_hub_task_that_panics_is_reported_and_connects_again() {
    let (events, mut received) = mpsc::channel(16);
    let options = HubTaskOptions { events, ..options() };
    let (own, _) = hub(options.secrets.identity().clone()).await;
    let url = local_url(own.address());
    let name = watch::Sender::new("panic".to_owned());
    let options = HubTaskOptions { choice: HubChoice::At(url), name: name.subscribe(), ..options };
    let task = HubHandle::start(HubRef::Default, options);
    let reason = loop {
        if let HubEvent::Down { reason } = received.recv().await.unwrap().event {
            break reason;
        }
    };
    assert_eq!(reason, "the connection to the hub stopped unexpectedly; it is started again");
    name.send_replace("Olga".to_owned());
    while !matches!(received.recv().await.unwrap().event, HubEvent::Up { .. }) {}
    task.close().await;
}

#[tokio::test]
async fn another_users_hub_is_skipped_and_this_users_hub_is_found() {
    let options = options();
    let listen = Some(Ipv4Addr::LOCALHOST.into());
    let (_other, port) = hub(HubIdentity::fresh()).await;
    let found = find_local_hub(listen, port, &options).await.unwrap();
    let own = found.embedded.as_ref().expect("a hub of our own");
    assert!(own.address().port() > port, "{}", found.url);
    let (_ours, port) = hub(options.secrets.identity().clone()).await;
    let found = find_local_hub(listen, port, &options).await.unwrap();
    assert!(found.embedded.is_none() && found.is_this_users);
    assert_eq!(found.url, local_url(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
}

#[tokio::test]
async fn a_lost_hub_is_displaced_by_another_users_hub_or_replaced_by_ours() {
    let options = options();
    let (ours, port) = hub(options.secrets.identity().clone()).await;
    let url = local_url(ours.address());
    let mut found = LocatedHub { url, embedded: None, is_this_users: true };
    let (hub, owner_keys) = (HubRef::Default, BTreeMap::new());
    let task = HubTask { hub, options, owner_keys, endpoint: None, is_down: true };
    assert!(!task.is_displaced(&mut found).await && found.embedded.is_none(), "our hub answers");
    drop(ours);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
    let other = loop {
        match Hub::start(HubOptions::at(listen)).await {
            Ok(hub) => break hub,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(task.is_displaced(&mut found).await && found.embedded.is_none());
    drop(other);
    while found.embedded.is_none() {
        assert!(!task.is_displaced(&mut found).await, "the port is free, so we embed a hub");
    }
    assert_eq!(found.embedded.unwrap().address().port(), port);
}
