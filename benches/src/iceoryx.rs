//! `iceoryx2`: publish-subscribe between two processes, polled.

use crate::port::{Message, Port, raise};
use anyhow::{Result, anyhow};
use iceoryx2::{
    port::{publisher::Publisher, subscriber::Subscriber},
    prelude::*,
    sample::Sample,
};

type Service = ipc::Service;

/// A service each way.
#[derive(Debug)]
pub struct PublishSubscribe {
    publisher: Publisher<Service, Message, ()>,
    subscriber: Subscriber<Service, Message, ()>,
    _node: Node<Service>,
}

impl PublishSubscribe {
    /// One side. Everything it creates has names that start with `prefix`, in
    /// shared memory and below a directory of that name for temporary files.
    ///
    /// # Errors
    ///
    /// iceoryx2's own.
    pub fn open(prefix: &str, server: bool) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        config.global.prefix = FileName::new(prefix.as_bytes()).map_err(failed)?;
        let root = std::env::temp_dir().join(format!("{prefix}iceoryx2"));
        let root = Path::new(root.as_os_str().as_encoded_bytes()).map_err(failed)?;
        config.global.set_root_path(&root);

        let node = NodeBuilder::new()
            .config(&config)
            .create::<Service>()
            .map_err(failed)?;
        let service = |name: &str| {
            let name = ServiceName::new(name).map_err(failed)?;
            node.service_builder(&name)
                .publish_subscribe::<Message>()
                .open_or_create()
                .map_err(failed)
        };
        let (out, back) = if server {
            ("pong", "ping")
        } else {
            ("ping", "pong")
        };
        Ok(Self {
            subscriber: service(back)?
                .subscriber_builder()
                .create()
                .map_err(failed)?,
            publisher: service(out)?.publisher_builder().create().map_err(failed)?,
            _node: node,
        })
    }

    #[inline]
    fn next(&self) -> Result<Sample<Service, Message, ()>> {
        loop {
            if let Some(sample) = self.subscriber.receive().map_err(failed)? {
                return Ok(sample);
            }
        }
    }
}

fn failed(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("iceoryx2: {error:?}")
}

impl Port for PublishSubscribe {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        let sample = self.publisher.loan_uninit().map_err(failed)?;
        sample.write_payload(*message).send().map_err(failed)?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        *into = *self.next()?;
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        let sample = self.next()?;
        *message = *sample;
        raise(message);
        self.send(message)?;
        drop(sample);
        Ok(())
    }
}
