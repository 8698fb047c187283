//! What rdkafka does not show: topic ids, a group member's generation, foreign commit metadata,
//! and a way to send that looks nothing up.
//!
//! The only unsafe code of the project: calls into librdkafka by its documented C interface.
#![expect(unsafe_code, reason = "rdkafka has no safe call for these; see the module's docs")]

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedHeaders;
use rdkafka::util::IntoOpaque;
use rdkafka_sys as sys;
use sys::rd_kafka_vtype_t as Type;
use sys::rd_kafka_vu_s__bindgen_ty_1 as Part;
use uuid::Uuid;

use super::Error;
use crate::kernel::message::{Headers, Outgoing};

/// One entry of a list of committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read; `None` if nothing is committed.
    pub offset: Option<i64>,
    /// What the committer wrote beside it. Bytes that are no UTF-8 are somebody else's: empty.
    pub metadata: String,
}

/// Copies a list out of librdkafka, whatever foreign clients put into its metadata (rdkafka's own
/// accessor panics on bytes that are no UTF-8). The list itself must not be kept: it makes the
/// drop of its consumer hang.
#[must_use]
pub fn committed_offsets(list: &TopicPartitionList) -> Vec<CommittedOffset> {
    let pointer = list.ptr();
    // SAFETY: the list owns `cnt` valid elements while it is borrowed.
    let elements = unsafe {
        let count = usize::try_from((*pointer).cnt).unwrap_or(0);
        if count == 0 { &[][..] } else { std::slice::from_raw_parts((*pointer).elems, count) }
    };
    elements
        .iter()
        .map(|element| {
            // SAFETY: topic is a NUL-terminated string that lives as long as the element.
            let topic = unsafe { CStr::from_ptr(element.topic) };
            let metadata: &[u8] = if element.metadata.is_null() || element.metadata_size == 0 {
                &[]
            } else {
                // SAFETY: librdkafka holds metadata_size bytes at metadata.
                unsafe {
                    std::slice::from_raw_parts(element.metadata.cast(), element.metadata_size)
                }
            };
            CommittedOffset {
                topic: topic.to_string_lossy().into_owned(),
                partition: element.partition,
                offset: (element.offset >= 0).then_some(element.offset),
                metadata: std::str::from_utf8(metadata).unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

/// Hands out each header, whatever bytes a client put into its name (rdkafka's own accessor panics
/// on a name that is no UTF-8; here such bytes are replaced).
pub fn for_each_header(headers: &BorrowedHeaders, mut sink: impl FnMut(&str, Option<&[u8]>)) {
    // A `BorrowedHeaders` is never anything but librdkafka's own list behind a reference.
    let list = std::ptr::from_ref(headers).cast::<sys::rd_kafka_headers_t>();
    for index in 0.. {
        let mut name = std::ptr::null();
        let mut value = std::ptr::null();
        let mut size = 0;
        // SAFETY: the list lives as long as the reference; librdkafka fills in pointers into it,
        // or says that there is no such header.
        let (name, value) = unsafe {
            let code = sys::rd_kafka_header_get_all(
                list,
                index,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            );
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            let value =
                (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            (CStr::from_ptr(name), value)
        };
        sink(&name.to_string_lossy(), value);
    }
}

/// Whether a consumer is a member of its group in good standing: its generation is known and it
/// has a member id. Without that, offsets sent to a transaction would not be fenced by the group.
#[must_use]
pub fn is_group_member<C: ClientContext>(client: &Client<C>) -> bool {
    let client = client.native_ptr();
    // SAFETY: `client` is a live consumer's handle; the metadata is destroyed before we return.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(client);
        if metadata.is_null() {
            return false;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = sys::rd_kafka_consumer_group_metadata_member_id(metadata);
        let named = !member.is_null() && !CStr::from_ptr(member).to_bytes().is_empty();
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation >= 0 && named
    }
}

/// Sends what a producer has gathered without waiting for its linger time, and waits until every
/// record is acknowledged or has failed. `false`: some are not, and the time is over.
///
/// rdkafka's own call polls where another thread polls already, in steps of up to 100 ms.
#[must_use]
pub fn flush<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the handle lives as long as its client.
    let code = unsafe { sys::rd_kafka_flush(client.native_ptr(), millis) };
    code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// What became of a record: its offset, or why and where it was not written.
pub type Delivery = Result<i64, String>;

/// Waits for the next thing that a producer has to tell, at most that long, and passes it on:
/// deliveries with their marks to `delivered`, all else to the client's context.
///
/// rdkafka's own call waits in whole milliseconds and spins through what is left of its time: one
/// per cent of a processor for each producer, whether it has anything to do or not.
pub fn serve<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
    mut delivered: impl FnMut(usize, Delivery),
) {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the handle lives as long as its client; queue and event are destroyed here, after
    // the last look at what they hold.
    unsafe {
        let queue = sys::rd_kafka_queue_get_main(client.native_ptr());
        let event = sys::rd_kafka_queue_poll(queue, millis);
        match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_DR => each_delivery(event, &mut delivered),
            sys::RD_KAFKA_EVENT_ERROR => {
                let error = KafkaError::Global(sys::rd_kafka_event_error(event).into());
                let reason = CStr::from_ptr(sys::rd_kafka_event_error_string(event));
                client.context().error(error, reason.to_string_lossy().trim());
            }
            sys::RD_KAFKA_EVENT_LOG => log(event),
            _ => {}
        }
        sys::rd_kafka_event_destroy(event);
        sys::rd_kafka_queue_destroy(queue);
    }
}

/// # Safety
/// `event` is a live event of deliveries.
unsafe fn each_delivery(
    event: *mut sys::rd_kafka_event_t,
    delivered: &mut impl FnMut(usize, Delivery),
) {
    // SAFETY: per the function's contract; messages live as long as their event, and each has a
    // topic.
    unsafe {
        while let Some(message) = sys::rd_kafka_event_message_next(event).as_ref() {
            let mark = message._private as usize;
            if message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                delivered(mark, Ok(message.offset));
                continue;
            }
            let code = RDKafkaErrorCode::from(message.err);
            let topic = CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)).to_string_lossy();
            delivered(mark, Err(format!("{topic} partition {}: {code}", message.partition)));
        }
    }
}

/// # Safety
/// `event` is a live event of the client's log.
unsafe fn log(event: *mut sys::rd_kafka_event_t) {
    let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: per the function's contract; the texts live as long as the event.
    unsafe {
        let code = sys::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level);
        if code == 0 {
            let facility = CStr::from_ptr(facility).to_string_lossy();
            let text = CStr::from_ptr(text).to_string_lossy();
            // From 5 on (notice) it is nothing that anybody must know.
            if level < 5 {
                tracing::warn!(%facility, "librdkafka: {text}");
            }
        }
    }
}

/// A producer's way to one topic. rdkafka looks the topic up by its name for every record.
pub struct Outlet<'c> {
    client: *mut sys::rd_kafka_t,
    topic: *mut sys::rd_kafka_topic_t,
    _producer: PhantomData<&'c ()>,
}

impl<'c> Outlet<'c> {
    /// Finds a topic, once.
    ///
    /// # Errors
    /// No topic has such a name.
    pub fn open<C: ClientContext>(client: &'c Client<C>, topic: &str) -> Result<Self, KafkaError> {
        let name = CString::new(topic)?;
        let client = client.native_ptr();
        // SAFETY: the handle lives as long as its client, which outlives `'c`; a null configuration
        // stands for the default one. What comes back is ours until it is destroyed.
        let topic = unsafe { sys::rd_kafka_topic_new(client, name.as_ptr(), std::ptr::null_mut()) };
        if topic.is_null() {
            return Err(KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopic));
        }
        Ok(Self { client, topic, _producer: PhantomData })
    }

    /// Hands a record over; librdkafka copies it. Its delivery, if it is told of, carries `mark`.
    ///
    /// # Errors
    /// It is not taken; after `QueueFull` it may be handed over again.
    pub fn send(
        &self,
        partition: i32,
        record: &Outgoing,
        mark: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        let headers = copy_headers(&record.headers);
        let value = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
        let memory = |bytes: Option<&[u8]>| Part {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(std::ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut().cast()),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        let parts = [
            value(Type::RD_KAFKA_VTYPE_RKT, Part { rkt: self.topic }),
            value(Type::RD_KAFKA_VTYPE_PARTITION, Part { i32_: partition }),
            value(Type::RD_KAFKA_VTYPE_MSGFLAGS, Part { i: sys::RD_KAFKA_MSG_F_COPY }),
            value(Type::RD_KAFKA_VTYPE_KEY, memory(record.key.as_deref())),
            value(Type::RD_KAFKA_VTYPE_VALUE, memory(record.value.as_deref())),
            value(Type::RD_KAFKA_VTYPE_OPAQUE, Part { ptr: mark.into_ptr() }),
            value(Type::RD_KAFKA_VTYPE_HEADERS, Part { headers }),
        ];
        // SAFETY: client and topic are alive; key and value are copied before the call returns;
        // the headers are librdkafka's if it took the record, else still ours.
        unsafe {
            let error = sys::rd_kafka_produceva(self.client, parts.as_ptr(), parts.len());
            if error.is_null() {
                return Ok(());
            }
            let code = sys::rd_kafka_error_code(error);
            sys::rd_kafka_error_destroy(error);
            if !headers.is_null() {
                sys::rd_kafka_headers_destroy(headers);
            }
            Err(code.into())
        }
    }
}

impl Drop for Outlet<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `open`, and destroyed here alone, before its client.
        unsafe { sys::rd_kafka_topic_destroy(self.topic) };
    }
}

/// Headers in librdkafka's own form; null if there are none.
fn copy_headers(headers: &Headers) -> *mut sys::rd_kafka_headers_t {
    if headers.is_empty() {
        return std::ptr::null_mut();
    }
    let length = |bytes: &[u8]| isize::try_from(bytes.len()).unwrap_or(isize::MAX);
    // SAFETY: names and values are copied before each call returns; no slice is longer than
    // `isize::MAX`. An empty value that is there must not be a null pointer, and is none.
    unsafe {
        let list = sys::rd_kafka_headers_new(headers.len());
        for (name, value) in headers.iter() {
            let value_start = value.map_or(std::ptr::null(), <[u8]>::as_ptr);
            sys::rd_kafka_header_add(
                list,
                name.as_ptr().cast(),
                length(name.as_bytes()),
                value_start.cast(),
                value.map_or(0, length),
            );
        }
        list
    }
}

/// The ids of topics, in the order asked for; `None` for a topic that does not exist.
///
/// # Errors
/// The brokers do not answer in time, or refuse.
pub fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<Option<Uuid>>, Error> {
    let client = client.native_ptr();
    let names: Vec<CString> =
        topics.iter().map(|topic| CString::new(*topic).unwrap_or_default()).collect();
    let mut pointers: Vec<*const std::ffi::c_char> =
        names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: every object made here is destroyed here; the names outlive the call; results are
    // read before the event that owns them is destroyed.
    unsafe {
        let collection =
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let queue = sys::rd_kafka_queue_new(client);
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut text: [std::ffi::c_char; 256] = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(
            options,
            millis,
            text.as_mut_ptr(),
            text.len(),
        );
        sys::rd_kafka_DescribeTopics(client, collection, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, millis);
        let answer = if event.is_null() {
            Err(Error::Unexpected("the brokers did not describe the topics in time".to_owned()))
        } else {
            read_topic_ids(event, topics)
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_TopicCollection_destroy(collection);
        answer
    }
}

/// # Safety
/// `event` is a live event of the queue that `rd_kafka_DescribeTopics` answered to.
unsafe fn read_topic_ids(
    event: *mut sys::rd_kafka_event_t,
    topics: &[&str],
) -> Result<Vec<Option<Uuid>>, Error> {
    // SAFETY: per the function's contract; librdkafka owns what it returns.
    unsafe {
        let code = sys::rd_kafka_event_error(event);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = CStr::from_ptr(sys::rd_kafka_event_error_string(event));
            let reason = text.to_string_lossy();
            return Err(Error::Unexpected(format!("describing topics failed: {reason}")));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut ids = vec![None; topics.len()];
        for index in 0..count {
            let description = *found.add(index);
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(description));
            let error = sys::rd_kafka_TopicDescription_error(description);
            let code = sys::rd_kafka_error_code(error);
            if !error.is_null() && code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                continue;
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(description);
            let high = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let low = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            let id = Uuid::from_u64_pair(high, low);
            for (place, topic) in topics.iter().enumerate() {
                if topic.as_bytes() == name.to_bytes() {
                    ids[place] = Some(id);
                }
            }
        }
        Ok(ids)
    }
}
