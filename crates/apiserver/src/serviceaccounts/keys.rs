//! JSON web signatures with the cluster's service account keys: ES256 (P-256) or RS256.
//!
//! A token is verified with the algorithm of the key that its `kid` names, never with one that the token asks
//! for. Upstream: `pkg/serviceaccount/jwt.go`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A key file is unusable.
#[derive(Debug, Error)]
pub enum KeysError {
    /// Not PEM with a PKCS#8 private key or a public key.
    #[error("service account key is not a PKCS#8 private key or a public key in PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// Neither P-256 nor RSA of at least 2048 bits.
    #[error("service account key is neither P-256 nor RSA of 2048 to 8192 bits")]
    Unsupported,
    /// Signing failed.
    #[error("service account token could not be signed")]
    Sign,
}

enum Signer {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// The public half of a key.
struct Verifier {
    id: String,
    spki: Vec<u8>,
    /// The point of a P-256 key, the PKCS#1 form of an RSA key.
    key: Vec<u8>,
    rsa: bool,
}

impl Verifier {
    fn new(spki: Vec<u8>) -> Result<Self, KeysError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(&spki).map_err(|_| KeysError::Unsupported)?;
        let rsa = match info.parsed() {
            Ok(Parsed::EC(point)) if point.data().len() == 65 => false,
            Ok(Parsed::RSA(_)) => true,
            _ => return Err(KeysError::Unsupported),
        };
        let key = info.subject_public_key.data.to_vec();
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(&spki)),
            key,
            rsa,
            spki,
        })
    }

    fn algorithm(&self) -> &'static str {
        if self.rsa { "RS256" } else { "ES256" }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        if self.rsa {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.key).verify(message, signature)
        } else {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.key).verify(message, signature)
        }
        .is_ok()
    }

    /// The entry of a JSON web key set. Source: RFC 7517, RFC 7518 section 6.
    fn to_jwk(&self) -> Option<Value> {
        let (_, info) = SubjectPublicKeyInfo::from_der(&self.spki).ok()?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let numbers = match info.parsed().ok()? {
            Parsed::RSA(rsa) => json!({
                "kty": "RSA",
                "n": encode(unpadded(rsa.modulus)),
                "e": encode(unpadded(rsa.exponent)),
            }),
            Parsed::EC(point) => json!({
                "kty": "EC",
                "crv": "P-256",
                "x": encode(point.data().get(1..33)?),
                "y": encode(point.data().get(33..65)?),
            }),
            _ => return None,
        };
        let mut jwk = json!({"use": "sig", "kid": self.id, "alg": self.algorithm()});
        jwk.as_object_mut()?.extend(numbers.as_object()?.clone());
        Some(jwk)
    }
}

/// DER integers carry a zero byte in front of a set top bit; JSON web keys do not.
fn unpadded(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|b| **b == 0).count();
    &integer[zeros..]
}

/// The key that signs tokens and the keys that verify them.
pub struct Keys {
    signer: Signer,
    /// The signer's own first.
    verifiers: Vec<Verifier>,
    random: SystemRandom,
}

impl Keys {
    /// `private` is a PKCS#8 private key in PEM; `older` are public keys in PEM, of tokens issued before a rotation.
    pub fn from_pem(private: &[u8], older: &[&[u8]]) -> Result<Self, KeysError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(private).map_err(KeysError::Pem)?;
        let random = SystemRandom::new();
        let pkcs8 = der.secret_pkcs8_der();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map(Signer::P256)
            .or_else(|_| RsaKeyPair::from_pkcs8(pkcs8).map(Signer::Rsa))
            .map_err(|_| KeysError::Unsupported)?;
        let public = rcgen::KeyPair::try_from(&der).map_err(|_| KeysError::Unsupported)?;
        let mut verifiers = vec![Verifier::new(public.subject_public_key_info())?];
        for pem in older {
            let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(KeysError::Pem)?;
            verifiers.push(Verifier::new(spki.to_vec())?);
        }
        Ok(Self {
            signer,
            verifiers,
            random,
        })
    }

    /// Signs claims: a JWT in compact form.
    pub fn sign(&self, claims: &impl serde::Serialize) -> Result<String, KeysError> {
        let own = &self.verifiers[0];
        let header = json!({"alg": own.algorithm(), "kid": own.id});
        let claims = serde_json::to_vec(claims).map_err(|_| KeysError::Sign)?;
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature = match &self.signer {
            Signer::P256(pair) => pair
                .sign(&self.random, message.as_bytes())
                .map_err(|_| KeysError::Sign)?
                .as_ref()
                .to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &self.random,
                    message.as_bytes(),
                    &mut signature,
                )
                .map_err(|_| KeysError::Sign)?;
                signature
            }
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a JWT, if one of the keys has signed it. What they say is not looked at.
    pub fn verify<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let algorithm = header.get("alg")?.as_str()?;
        let id = header.get("kid").and_then(Value::as_str).unwrap_or_default();
        let signed = self
            .verifiers
            .iter()
            .filter(|key| key.algorithm() == algorithm && (id.is_empty() || key.id == id))
            .any(|key| key.verifies(message.as_bytes(), &signature));
        if !signed {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// The public keys as a JSON web key set, for `/openid/v1/jwks`.
    pub fn to_jwks(&self) -> Value {
        let keys: Vec<Value> = self.verifiers.iter().filter_map(Verifier::to_jwk).collect();
        json!({"keys": keys})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(algorithm: &'static rcgen::SignatureAlgorithm) -> (Keys, rcgen::KeyPair) {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        (
            Keys::from_pem(pair.serialize_pem().as_bytes(), &[]).unwrap(),
            pair,
        )
    }

    /// 2048 bits, made for this test with `openssl genpkey -algorithm RSA`.
    const RSA: &[u8] = include_bytes!("testdata/rsa.pem");

    #[test]
    fn round_trip_and_tampering() {
        let rsa = Keys::from_pem(RSA, &[]).unwrap();
        for (keys, algorithm) in [(keys(&rcgen::PKCS_ECDSA_P256_SHA256).0, "ES256"), (rsa, "RS256")] {
            let token = keys.sign(&json!({"sub": "a"})).unwrap();
            assert_eq!(keys.verify::<Value>(&token), Some(json!({"sub": "a"})));
            assert_eq!(keys.to_jwks()["keys"][0]["alg"], algorithm);

            let (message, signature) = token.rsplit_once('.').unwrap();
            let (header, _) = message.split_once('.').unwrap();
            let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
            assert_eq!(
                keys.verify::<Value>(&format!("{header}.{forged}.{signature}")),
                None
            );
            assert_eq!(keys.verify::<Value>(message), None);
            let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
            assert_eq!(keys.verify::<Value>(&format!("{none}.{forged}.")), None);
            for garbage in ["", ".", "..", "a.b.c", "…"] {
                assert_eq!(keys.verify::<Value>(garbage), None, "{garbage}");
            }
        }
    }

    #[test]
    fn rotated_keys_still_verify_and_strangers_do_not() {
        let (old, old_pair) = keys(&rcgen::PKCS_ECDSA_P256_SHA256);
        let token = old.sign(&json!(1)).unwrap();
        let (stranger, pair) = keys(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(stranger.verify::<Value>(&token), None);
        let rotated = Keys::from_pem(
            pair.serialize_pem().as_bytes(),
            &[old_pair.public_key_pem().as_bytes()],
        )
        .unwrap();
        assert_eq!(rotated.verify::<Value>(&token), Some(json!(1)));
        assert_eq!(rotated.to_jwks()["keys"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn unusable_keys_are_named() {
        assert!(matches!(Keys::from_pem(b"", &[]), Err(KeysError::Pem(_))));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(matches!(
            Keys::from_pem(other.serialize_pem().as_bytes(), &[]),
            Err(KeysError::Unsupported)
        ));
    }
}
