//! Certificate actors and operators' actions as bytes.

use crate::certificate_actor::{ActorRole, CertificateActor};
use crate::codec::bytes::{DecodeError, Reader, Writer};
use crate::operator_action::{OperatorAction, ReplicaAddress};

impl CertificateActor {
    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        out.u8(match self.role() {
            ActorRole::Operator => 1,
            ActorRole::Catalog => 2,
        });
        out.short_text(self.name());
    }

    pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let role = match reader.u8()? {
            1 => ActorRole::Operator,
            2 => ActorRole::Catalog,
            _ => return Err(DecodeError::Value("role of a certificate")),
        };
        let length = usize::from(reader.u8()?);
        Self::new(role, reader.text(length)?).ok_or(DecodeError::Value("name of a certificate"))
    }
}

impl OperatorAction {
    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        let (tag, id) = match self {
            Self::AddReplica { id, .. } => (1, id),
            Self::RemoveReplica { id } => (2, id),
            Self::TransferLead { to } => (3, to),
            Self::Repair { id } => (4, id),
            Self::Recover { id } => (5, id),
            Self::Restore { id } => (6, id),
        };
        out.u8(tag);
        out.u64(*id);
        if let Self::AddReplica { address, .. } = self {
            let length = address.as_str().len();
            out.u16(u16::try_from(length).expect("an address is at most 1,024 bytes long"));
            out.raw(address.as_str().as_bytes());
        }
    }

    pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = reader.u8()?;
        let id = reader.u64()?;
        Ok(match tag {
            1 => {
                let length = usize::from(reader.u16()?);
                let address = ReplicaAddress::new(reader.text(length)?);
                let address = address.ok_or(DecodeError::Value("address of a replica"))?;
                Self::AddReplica { id, address }
            }
            2 => Self::RemoveReplica { id },
            3 => Self::TransferLead { to: id },
            4 => Self::Repair { id },
            5 => Self::Recover { id },
            6 => Self::Restore { id },
            _ => return Err(DecodeError::Value("operator's action")),
        })
    }
}
